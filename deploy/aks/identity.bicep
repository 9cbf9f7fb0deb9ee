// Who meshfed is in Azure: an identity that a pod of an AKS cluster may be, and the least role for it.
// az deployment sub create --location westeurope --template-file identity.bicep --parameters …
targetScope = 'subscription'

@description('The resource group that the identity is made in; it must exist.')
param group string

@description('The cluster that meshfed runs in, as `az aks show --query oidcIssuerProfile.issuerUrl` has it.')
param issuer string

@description('The namespace and service account of its pod.')
param account string = 'meshfed:meshfed'

var role = loadJsonContent('role.json')

resource reader 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(subscription().id, role.Name)
  properties: {
    roleName: role.Name
    description: role.Description
    type: 'CustomRole'
    permissions: [{ actions: role.Actions, notActions: [] }]
    assignableScopes: [subscription().id]
  }
}

module identity 'identity-of-pod.bicep' = {
  name: 'meshfed-identity'
  scope: resourceGroup(group)
  params: { issuer: issuer, account: account }
}

resource assigned 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(subscription().id, group, role.Name)
  properties: {
    roleDefinitionId: reader.id
    principalId: identity.outputs.principalId
    principalType: 'ServicePrincipal'
  }
}

output clientId string = identity.outputs.clientId
