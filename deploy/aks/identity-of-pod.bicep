// The identity itself, and which pod may be it.
param issuer string
param account string

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: 'meshfed'
  location: resourceGroup().location
}

resource pod 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31' = {
  parent: identity
  name: 'meshfed'
  properties: {
    issuer: issuer
    subject: 'system:serviceaccount:${account}'
    audiences: ['api://AzureADTokenExchange']
  }
}

output clientId string = identity.properties.clientId
output principalId string = identity.properties.principalId
